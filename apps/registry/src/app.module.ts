import { Module, type DynamicModule } from '@nestjs/common';
import { connectDatabase, HealthService } from '@gantry/service-kit';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { DataSource } from 'typeorm';
import { ArchivesController } from './archives/archives.controller.js';
import { ArchivesService } from './archives/archives.service.js';
import { BlobStore } from './blobs/blob-store.js';
import { UploadStore } from './blobs/upload-store.js';
import { CollectionService } from './collection/collection.service.js';
import { CONFIG, type RegistryConfig } from './config.js';
import { ImageReferenceRow, ImageRow, ManifestRow, RepositoryBlobRow, TagRow } from './database/entities.js';
import { Initial1764000000000 } from './database/initial.migration.js';
import { DistributionController } from './distribution/distribution.controller.js';
import { RepositoriesService } from './distribution/repositories.service.js';
import { ImageEvents } from './events/image-events.js';
import { BlobsController } from './images/blobs.controller.js';
import { ImagesController } from './images/images.controller.js';
import { ImagesService } from './images/images.service.js';
import { LayersService } from './images/layers.service.js';
import { TransferService } from './transfer/transfer.service.js';

/** The content store and what is made of it: images for containers, repositories for registry clients. */
@Module({})
export class AppModule {
  constructor(health: HealthService, database: DataSource) {
    health.register('postgres', async () => void (await database.query('SELECT 1')));
  }

  static for(config: RegistryConfig): DynamicModule {
    const root = join(config.GANTRY_DATA_ROOT, 'registry');
    return {
      module: AppModule,
      controllers: [ArchivesController, DistributionController],
      providers: [
        { provide: CONFIG, useValue: config },
        {
          provide: DataSource,
          useFactory: () =>
            connectDatabase({
              url: config.DATABASE_URL,
              schema: 'registry',
              entities: [ImageRow, ImageReferenceRow, ManifestRow, TagRow, RepositoryBlobRow],
              migrations: [Initial1764000000000],
            }),
        },
        {
          provide: BlobStore,
          useFactory: async () => {
            await mkdir(root, { recursive: true });
            const store = new BlobStore(root);
            await store.open();
            return store;
          },
        },
        {
          provide: UploadStore,
          inject: [BlobStore],
          useFactory: async (blobs: BlobStore) => {
            const uploads = new UploadStore(root, blobs);
            await uploads.open();
            return uploads;
          },
        },
        ArchivesService,
        BlobsController,
        CollectionService,
        ImageEvents,
        ImagesController,
        ImagesService,
        LayersService,
        RepositoriesService,
        TransferService,
      ],
    };
  }
}
