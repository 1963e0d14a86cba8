import type { Logger } from '../logging/logger.js';

const DEADLINE_MS = 10_000;

/** First SIGTERM or SIGINT: close in order, within a deadline. A second one exits at once. */
export function trapSignals(service: { close(): Promise<void>; logger: Logger }): void {
  let isClosing = false;
  const onSignal = (signal: NodeJS.Signals) => {
    if (isClosing) process.exit(1);
    isClosing = true;
    service.logger.info({ signal }, 'closing');
    setTimeout(() => {
      service.logger.error(`not closed within ${DEADLINE_MS} ms: exiting all the same`);
      process.exit(1);
    }, DEADLINE_MS).unref();
    service.close().then(
      () => process.exit(0),
      (error: unknown) => {
        service.logger.error({ err: error }, 'closing failed');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
}
