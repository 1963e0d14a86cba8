import 'reflect-metadata';
import { runService, socketAddress } from '@gantry/service-kit';
import { AppModule } from './app.module.js';
import { readConfig } from './config.js';

await runService(() => {
  const config = readConfig();
  const isApi = config.GANTRY_BUILDER_ROLE === 'api';
  const worker = `worker-${config.GANTRY_BUILDER_WORKER}`;
  return {
    name: isApi ? 'builder' : worker,
    module: AppModule.for(config),
    logLevel: config.GANTRY_LOG_LEVEL,
    grpc: isApi ? [socketAddress(config.GANTRY_RUN_DIR, 'builder', 'grpc')] : [],
    http: [
      {
        address: isApi
          ? socketAddress(config.GANTRY_RUN_DIR, 'builder', 'http')
          : `unix://${config.GANTRY_RUN_DIR}/${worker}.http.sock`,
      },
    ],
  };
});
