import { Inject } from '@nestjs/common';
import { agent, type common } from '@gantry/contracts';
import { GrpcService } from '@gantry/service-kit';
import { ExecService } from './exec.service.js';

@GrpcService(agent.ExecsDefinition)
export class ExecController implements agent.ExecsServiceImplementation {
  constructor(@Inject(ExecService) private readonly execs: ExecService) {}

  create(request: agent.CreateExecRequest): Promise<agent.CreateExecResponse> {
    return Promise.resolve({ id: this.execs.create(request) });
  }

  async start({ id, consoleSize }: agent.StartExecRequest): Promise<common.Empty> {
    const session = await this.execs.start(id, consoleSize);
    session.stream.resume(); // detached: its output is nobody's
    return {};
  }

  inspect({ id }: agent.InspectExecRequest): Promise<agent.Exec> {
    return Promise.resolve(this.execs.inspect(id));
  }

  async resize({ id, rows, columns }: agent.ResizeRequest): Promise<common.Empty> {
    await this.execs.resize(id, rows, columns);
    return {};
  }
}
