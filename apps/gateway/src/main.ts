import 'reflect-metadata';
import { execFileSync } from 'node:child_process';
import { DocumentBuilder, SwaggerModule } from '@nestjs/swagger';
import { runService, socketAddress } from '@gantry/service-kit';
import { AppModule } from './app.module.js';
import { readConfig } from './config.js';
import { stripVersion, versionOf } from './docker/api-version/api-version.js';
import { ErrorFilter } from './docker/errors/docker.filter.js';
import { SpliceService } from './docker/stdio/splice.service.js';

/** Members of the group `docker` may use the socket, where the host has that group. */
function dockerGroup(): { mode: number; gid?: number } {
  try {
    const gid = Number(execFileSync('getent', ['group', 'docker'], { encoding: 'utf8' }).split(':')[2]);
    return { mode: 0o660, gid };
  } catch {
    return { mode: 0o600 }; // no such group: root alone
  }
}

await runService(() => {
  const config = readConfig();
  const access = dockerGroup();
  return {
    name: 'gateway',
    module: AppModule.for(config),
    logLevel: config.GANTRY_LOG_LEVEL,
    grpc: [],
    http: [
      { address: socketAddress(config.GANTRY_RUN_DIR, 'gateway', 'http') },
      ...config.GANTRY_LISTEN.map((address) => ({ address, ...(address.startsWith('unix:') ? access : {}) })),
    ],
    adapter: { rewriteUrl: (request) => stripVersion(request) },
    onUpgrade: (app) => {
      const splice = app.get(SpliceService);
      return (request, socket, head) => splice.accept(request, socket, head);
    },
    configure: (app, logger) => {
      app.useGlobalFilters(new ErrorFilter(logger));
      app
        .getHttpAdapter()
        .getInstance()
        .addHook('onRequest', (request, _reply, done) => {
          versionOf(request.raw);
          done();
        });
      // Docker's clients compare this header as a whole: no charset behind it.
      app
        .getHttpAdapter()
        .getInstance()
        .addHook('onSend', (_request, reply, payload, done) => {
          const type = reply.getHeader('content-type');
          if (typeof type === 'string' && type.startsWith('application/json;'))
            reply.header('content-type', 'application/json');
          done(null, payload);
        });
      const document = new DocumentBuilder().setTitle('Gantry platform API').setVersion('1').build();
      const openApi = SwaggerModule.createDocument(app, document);
      const paths = Object.fromEntries(Object.entries(openApi.paths).filter(([path]) => path.startsWith('/api/v1')));
      app
        .getHttpAdapter()
        .getInstance()
        .get('/api/v1/openapi.json', (_request, reply) => reply.send({ ...openApi, paths }));
    },
  };
});
