import 'reflect-metadata';
import { runService, socketAddress } from '@gantry/service-kit';
import { AppModule } from './app.module.js';
import { readConfig } from './config.js';
import { UpgradeService } from './stdio/upgrade.service.js';

await runService(() => {
  const config = readConfig();
  return {
    name: 'agent',
    module: AppModule.for(config),
    logLevel: config.logLevel,
    grpc: [socketAddress(config.runDir, 'agent', 'grpc')],
    http: [{ address: socketAddress(config.runDir, 'agent', 'http') }],
    onUpgrade: (app) => {
      const upgrades = app.get(UpgradeService);
      return (request, socket, head) => upgrades.accept(request, socket, head);
    },
  };
});
