import { Inject } from '@nestjs/common';
import { NotFound } from '@gantry/errors';
import { registry } from '@gantry/contracts';
import { isDigest, parseDigest } from '@gantry/oci';
import { GrpcService } from '@gantry/service-kit';
import { BlobStore } from '../blobs/blob-store.js';

@GrpcService(registry.BlobsDefinition)
export class BlobsController implements registry.BlobsServiceImplementation {
  constructor(@Inject(BlobStore) private readonly blobs: BlobStore) {}

  async locate({ digest }: registry.LocateBlobRequest): Promise<registry.BlobLocation> {
    const wanted = parseDigest(digest);
    const size = await this.blobs.size(wanted);
    if (size === undefined) throw new NotFound('blob', digest);
    return { path: this.blobs.pathOf(wanted), size };
  }

  async exist({ digests }: registry.ExistRequest): Promise<registry.ExistResponse> {
    const sizes = await Promise.all(
      digests.map(async (digest) => (isDigest(digest) ? this.blobs.size(digest) : undefined)),
    );
    return { present: digests.filter((_, index) => sizes[index] !== undefined) };
  }
}
