import { NotFound } from '@gantry/errors';
import type { registry } from '@gantry/contracts';
import { familiarName, formatFamiliar, parseReference, type ImageConfig, type Reference } from '@gantry/oci';
import type { ImageRow } from '../database/entities.js';

/** An image with its names; what the service keeps in memory. */
export interface Image {
  readonly row: ImageRow;
  readonly config: ImageConfig;
  /** Full references, tags and digests. */
  readonly references: Set<string>;
}

export function isDigestReference(reference: string): boolean {
  return reference.includes('@');
}

export function sizeOf(image: Image): number {
  return image.row.layers.reduce((sum, layer) => sum + layer.uncompressedSize, 0);
}

/** `busybox:latest` of `docker.io/library/busybox:latest`. */
export function familiar(reference: string): string {
  return formatFamiliar(parseReference(reference));
}

export function toMessage(image: Image): registry.Image {
  const { row, config } = image;
  const references = [...image.references].sort();
  return {
    id: row.id,
    tags: references.filter((reference) => !isDigestReference(reference)).map(familiar),
    repoDigests: references.filter(isDigestReference).map(familiar),
    config: row.config,
    manifest: { ...row.manifest, annotations: {}, platform: undefined },
    layers: row.layers.map(({ diffId, descriptor }) => ({
      diffId,
      descriptor: { ...descriptor, annotations: {}, platform: undefined },
    })),
    size: sizeOf(image),
    created: config.created ?? '',
    parentId: row.parentId,
    lastTagged: row.lastTagged,
    platform: { os: config.os, architecture: config.architecture, variant: config.variant ?? '' },
    comment: config.history?.at(-1)?.comment ?? '',
  };
}

/** Docker's words for an image that is not there. */
export function noSuchImage(text: string, reference?: Reference): NotFound {
  const shown =
    reference && reference.tag === undefined && reference.digest === undefined
      ? `${familiarName(reference)}:latest`
      : text;
  return new NotFound('image', shown);
}
