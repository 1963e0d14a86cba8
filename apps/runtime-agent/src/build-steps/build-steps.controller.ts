import { Inject } from '@nestjs/common';
import { agent, type common } from '@gantry/contracts';
import { GrpcService } from '@gantry/service-kit';
import type { CallContext } from 'nice-grpc-common';
import { BuildStepsService, toLayer } from './build-steps.service.js';

@GrpcService(agent.BuildStepsDefinition)
export class BuildStepsController implements agent.BuildStepsServiceImplementation {
  constructor(@Inject(BuildStepsService) private readonly steps: BuildStepsService) {}

  async prepare({ attemptId, layers }: agent.PrepareStepRequest): Promise<agent.PrepareStepResponse> {
    return { snapshotId: await this.steps.prepare(attemptId, layers.map(toLayer)) };
  }

  run(request: agent.RunStepRequest, { signal }: CallContext): AsyncGenerator<agent.RunStepEvent> {
    return this.steps.run(request, signal);
  }

  copy(request: agent.CopyStepRequest): Promise<agent.CopyStepResponse> {
    return this.steps.copy(request);
  }

  async makeDirectory({ snapshotId, path, user }: agent.MakeDirectoryRequest): Promise<common.Empty> {
    await this.steps.makeDirectory(snapshotId, path, user);
    return {};
  }

  commit({ snapshotId, sourceDateEpoch }: agent.CommitStepRequest): Promise<agent.CommitStepResponse> {
    return this.steps.commit(snapshotId, sourceDateEpoch);
  }

  digest(request: agent.DigestRequest): Promise<agent.DigestResponse> {
    return this.steps.digest(request);
  }

  async readFile({ source, path, limitBytes }: agent.ReadFileRequest): Promise<agent.ReadFileResponse> {
    return { content: await this.steps.readFile(source, path, limitBytes) };
  }

  release({ snapshotId, attemptId }: agent.ReleaseRequest): Promise<common.Empty> {
    this.steps.release(snapshotId, attemptId);
    return Promise.resolve({});
  }
}
