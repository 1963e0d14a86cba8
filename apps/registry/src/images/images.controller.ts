import { Inject } from '@nestjs/common';
import { common, registry } from '@gantry/contracts';
import { NotFound } from '@gantry/errors';
import { formatReference, parseDigest, parseReference, withDefaultTag } from '@gantry/oci';
import { GrpcService } from '@gantry/service-kit';
import type { CallContext } from 'nice-grpc-common';
import { BlobStore } from '../blobs/blob-store.js';
import type { StoredLayer } from '../database/entities.js';
import { ImageEvents } from '../events/image-events.js';
import { TransferService } from '../transfer/transfer.service.js';
import { sizeOf, toMessage } from './image.js';
import { ImagesService } from './images.service.js';

@GrpcService(registry.ImagesDefinition)
export class ImagesController implements registry.ImagesServiceImplementation {
  constructor(
    @Inject(ImagesService) private readonly images: ImagesService,
    @Inject(BlobStore) private readonly blobs: BlobStore,
    @Inject(TransferService) private readonly transfer: TransferService,
    @Inject(ImageEvents) private readonly imageEvents: ImageEvents,
  ) {}

  resolve({ reference, platform }: registry.ResolveImageRequest): Promise<registry.Image> {
    return Promise.resolve(toMessage(this.images.resolve(reference, platform)));
  }

  list(request: registry.ListImagesRequest): Promise<registry.ListImagesResponse> {
    return Promise.resolve({ images: this.images.list(request).map(toMessage) });
  }

  async create(request: registry.CreateImageRequest): Promise<registry.Image> {
    const references = request.tags.map((tag) => formatReference(withDefaultTag(parseReference(tag))));
    const layers = await Promise.all(request.layers.map((layer) => this.#storedLayer(layer)));
    const image = await this.images.create({ config: request.config, layers, parentId: request.parentId });
    for (const reference of references) await this.images.point(reference, image);
    return toMessage(image);
  }

  async tag({ source, target }: registry.TagImageRequest): Promise<common.Empty> {
    await this.images.tag(source, target);
    return {};
  }

  async remove(request: registry.RemoveImageRequest): Promise<registry.RemoveImageResponse> {
    return { removed: await this.images.remove(request), spaceReclaimed: 0 };
  }

  async prune(request: registry.PruneImagesRequest): Promise<registry.RemoveImageResponse> {
    const { removed, reclaimed } = await this.images.prune(request);
    return { removed, spaceReclaimed: reclaimed };
  }

  pull(request: registry.PullImageRequest, { signal }: CallContext): AsyncGenerator<registry.TransferProgress> {
    return this.transfer.pull(request, signal);
  }

  push(request: registry.PushImageRequest): AsyncGenerator<registry.TransferProgress> {
    return this.transfer.push(request);
  }

  async login({ credentials }: registry.LoginRequest): Promise<registry.LoginResponse> {
    const status = await this.transfer.login(credentials ?? common.RegistryCredentials.fromPartial({}));
    return { status, identityToken: '' };
  }

  inspectRemote(
    request: registry.InspectRemoteRequest,
    { signal }: CallContext,
  ): Promise<registry.InspectRemoteResponse> {
    return this.transfer.inspectRemote(request, signal);
  }

  events(request: common.EventsRequest, { signal }: CallContext): AsyncGenerator<common.Event> {
    return this.imageEvents.subscribe(request, signal);
  }

  diskUsage(): Promise<registry.DiskUsageResponse> {
    const images = this.images.all;
    const users = new Map<string, number>();
    for (const { row } of images) for (const { diffId } of row.layers) users.set(diffId, (users.get(diffId) ?? 0) + 1);
    const layers = new Map(
      images.flatMap(({ row }) => row.layers.map((layer) => [layer.diffId, layer.uncompressedSize] as const)),
    );
    return Promise.resolve({
      layersSize: [...layers.values()].reduce((sum, size) => sum + size, 0),
      images: images.map((image) => {
        const shared = image.row.layers.filter(({ diffId }) => (users.get(diffId) ?? 0) > 1);
        const sharedSize = Math.min(
          sizeOf(image),
          shared.reduce((sum, layer) => sum + layer.uncompressedSize, 0),
        );
        return { image: toMessage(image), sharedSize };
      }),
    });
  }

  async #storedLayer({ diffId, descriptor }: registry.Layer): Promise<StoredLayer> {
    const digest = parseDigest(descriptor?.digest ?? '');
    const size = await this.blobs.size(digest);
    if (size === undefined) throw new NotFound('blob', digest, `layer ${digest} is not in the store`);
    const known = this.images.all.flatMap(({ row }) => row.layers).find((layer) => layer.descriptor.digest === digest);
    return (
      known ?? {
        diffId: parseDigest(diffId),
        descriptor: { mediaType: descriptor?.mediaType ?? '', digest, size },
        uncompressedSize: size,
      }
    );
  }
}
