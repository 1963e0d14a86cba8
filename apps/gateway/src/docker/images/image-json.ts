import type { registry } from '@gantry/contracts';
import type { ImageConfig } from '@gantry/oci';

const emptyOrNull = <T>(list: readonly T[] | null | undefined) => (list && list.length > 0 ? list : null);

export function configOf(image: registry.Image): ImageConfig {
  return JSON.parse(image.config.toString()) as ImageConfig;
}

/** One entry of `GET /images/json`. */
export function toImageSummary(image: registry.Image, containers = -1) {
  const config = configOf(image);
  return {
    Id: image.id,
    ParentId: image.parentId,
    RepoTags: image.tags,
    RepoDigests: image.repoDigests,
    Created: Math.floor(Date.parse(image.created || '1970-01-01T00:00:00Z') / 1000),
    Size: image.size,
    SharedSize: -1,
    Labels: config.config?.Labels ?? null,
    Containers: containers,
  };
}

/** `GET /images/{name}/json`. */
export function toImageInspect(image: registry.Image) {
  const config = configOf(image);
  const c = config.config;
  return {
    Id: image.id,
    RepoTags: image.tags,
    RepoDigests: image.repoDigests,
    Parent: image.parentId,
    Comment: image.comment,
    Created: image.created,
    DockerVersion: '',
    Author: config.author ?? '',
    Config: {
      Hostname: '',
      Domainname: '',
      User: c?.User ?? '',
      AttachStdin: false,
      AttachStdout: false,
      AttachStderr: false,
      ...(c?.ExposedPorts ? { ExposedPorts: c.ExposedPorts } : {}),
      Tty: false,
      OpenStdin: false,
      StdinOnce: false,
      Env: c?.Env ?? null,
      Cmd: emptyOrNull(c?.Cmd),
      ...(c?.Healthcheck ? { Healthcheck: c.Healthcheck } : {}),
      Image: '',
      Volumes: c?.Volumes ?? null,
      WorkingDir: c?.WorkingDir ?? '',
      Entrypoint: emptyOrNull(c?.Entrypoint),
      OnBuild: emptyOrNull(c?.OnBuild),
      Labels: c?.Labels ?? null,
      ...(c?.StopSignal ? { StopSignal: c.StopSignal } : {}),
      ...(c?.Shell ? { Shell: c.Shell } : {}),
    },
    Architecture: config.architecture,
    ...(config.variant ? { Variant: config.variant } : {}),
    Os: config.os,
    Size: image.size,
    GraphDriver: { Name: 'overlay2', Data: null },
    RootFS: { Type: 'layers', ...(config.rootfs.diff_ids.length > 0 ? { Layers: config.rootfs.diff_ids } : {}) },
    Metadata: { LastTagTime: image.lastTagged || '0001-01-01T00:00:00Z' },
    Descriptor: image.manifest
      ? { mediaType: image.manifest.mediaType, digest: image.manifest.digest, size: image.manifest.size }
      : null,
  };
}

/** `GET /images/{name}/history`: newest first; only the top line has an ID. */
export function toHistory(image: registry.Image, sizes: ReadonlyMap<string, number>) {
  const config = configOf(image);
  const layers = [...image.layers];
  const lines = (config.history ?? []).map((entry) => {
    const layer = entry.empty_layer ? undefined : layers.shift();
    return {
      Id: '<missing>',
      Created: Math.floor(Date.parse(entry.created ?? '1970-01-01T00:00:00Z') / 1000),
      CreatedBy: entry.created_by ?? '',
      Tags: null as readonly string[] | null,
      Size: layer ? (sizes.get(layer.diffId) ?? layer.descriptor?.size ?? 0) : 0,
      Comment: entry.comment ?? '',
    };
  });
  const newestFirst = lines.reverse();
  if (newestFirst[0]) Object.assign(newestFirst[0], { Id: image.id, Tags: emptyOrNull(image.tags) });
  return newestFirst;
}
