import 'reflect-metadata';
import { runService, socketAddress } from '@gantry/service-kit';
import { AppModule } from './app.module.js';
import { readConfig } from './config.js';

await runService(() => {
  const config = readConfig();
  return {
    name: 'registry',
    module: AppModule.for(config),
    logLevel: config.GANTRY_LOG_LEVEL,
    grpc: [socketAddress(config.GANTRY_RUN_DIR, 'registry', 'grpc')],
    http: [
      { address: socketAddress(config.GANTRY_RUN_DIR, 'registry', 'http') },
      { address: config.GANTRY_REGISTRY_ADDRESS },
    ],
  };
});
