import type { builder } from '@gantry/contracts';

const short = (id: string) => id.replace(/^sha256:/, '').slice(0, 12);

/** A build's events as the lines that `docker build` has always printed. Pure. */
export function toBuildLines({ event }: builder.BuildLogEntry): object[] {
  const text = (stream: string) => [{ stream }];
  switch (event?.$case) {
    case 'stepStarted':
      return text(`Step ${event.value.index}/${event.value.total} : ${event.value.instruction}\n`);
    case 'stepCached':
      return text(' ---> Using cache\n');
    case 'stepRunning':
      return text(` ---> Running in ${short(event.value.containerId)}\n`);
    case 'stepOutput':
      return text(event.value.data.toString('utf8'));
    case 'stepDone':
      return [
        ...(event.value.containerId
          ? text(` ---> Removed intermediate container ${short(event.value.containerId)}\n`)
          : []),
        ...text(` ---> ${short(event.value.imageId)}\n`),
      ];
    case 'warning':
      return text(`[Warning] ${event.value.message}\n`);
    case 'pullProgress':
      return [
        {
          status: event.value.status,
          ...(event.value.id ? { id: event.value.id } : {}),
          progressDetail: event.value.total ? { current: event.value.current, total: event.value.total } : {},
        },
      ];
    case 'imageDone':
      return [
        { aux: { ID: event.value.imageId } },
        ...text(`Successfully built ${short(event.value.imageId)}\n`),
        ...event.value.tags.flatMap((tag) => text(`Successfully tagged ${tag}\n`)),
      ];
    case 'ended': {
      const { error, exitCode } = event.value;
      return error ? [{ errorDetail: { ...(exitCode ? { code: exitCode } : {}), message: error }, error }] : [];
    }
    default:
      return [];
  }
}
