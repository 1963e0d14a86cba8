import { Controller, Get, HttpCode, Param, Post } from '@nestjs/common';
import { NotFound } from '@gantry/errors';

/** No volumes yet: the answers of an engine that has none. */
@Controller('volumes')
export class VolumesController {
  @Get()
  list(): unknown {
    return { Volumes: null, Warnings: null };
  }

  @Post('prune')
  @HttpCode(200)
  prune(): unknown {
    return { VolumesDeleted: null, SpaceReclaimed: 0 };
  }

  @Get(':name')
  inspect(@Param('name') name: string): never {
    throw new NotFound('volume', name);
  }
}
