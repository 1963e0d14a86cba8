import { Inject } from '@nestjs/common';
import { builder } from '@gantry/contracts';
import { GrpcService } from '@gantry/service-kit';
import type { CallContext } from 'nice-grpc-common';
import { BuildLog } from '../log/build-log.js';
import { CacheRepository } from '../solver/cache.repository.js';
import { toBuild } from './build.js';
import { BuildsService } from './builds.service.js';

@GrpcService(builder.BuildsDefinition)
export class BuildsController implements builder.BuildsServiceImplementation {
  constructor(
    @Inject(BuildsService) private readonly builds: BuildsService,
    @Inject(BuildLog) private readonly log: BuildLog,
    @Inject(CacheRepository) private readonly cache: CacheRepository,
  ) {}

  async submit(request: builder.SubmitBuildRequest): Promise<builder.Build> {
    return toBuild(await this.builds.submit(request));
  }

  async get({ id }: builder.GetBuildRequest): Promise<builder.Build> {
    return toBuild(await this.builds.get(id));
  }

  async list(request: builder.ListBuildsRequest): Promise<builder.ListBuildsResponse> {
    return { builds: (await this.builds.list(request)).map(toBuild) };
  }

  async cancel({ id, reason }: builder.CancelBuildRequest): Promise<builder.Build> {
    return toBuild(await this.builds.cancel(id, reason));
  }

  async *follow(
    { id, fromSequence, follow }: builder.FollowBuildRequest,
    { signal }: CallContext,
  ): AsyncGenerator<builder.BuildLogEntry> {
    await this.builds.get(id);
    yield* this.log.read(id, fromSequence, follow, signal);
  }

  async pruneCache({ all }: builder.PruneCacheRequest): Promise<builder.PruneCacheResponse> {
    return { deleted: await this.cache.prune(all), spaceReclaimed: 0 };
  }

  async cacheUsage(): Promise<builder.CacheUsageResponse> {
    return { records: await this.cache.usage() };
  }
}
