import type { Descriptor, Digest } from '@gantry/oci';
import { Column, Entity, PrimaryColumn } from 'typeorm';

export interface StoredLayer {
  readonly diffId: Digest;
  readonly descriptor: Descriptor;
  /** Bytes of the uncompressed tar. */
  readonly uncompressedSize: number;
}

/** An image as containers use it. Its ID is the digest of its configuration. */
@Entity({ name: 'images' })
export class ImageRow {
  @PrimaryColumn('text') id!: string;
  @Column('bytea') config!: Buffer;
  @Column('jsonb') manifest!: Descriptor;
  @Column('jsonb') layers!: StoredLayer[];
  @Column('text', { name: 'parent_id' }) parentId!: string;
  @Column('text', { name: 'last_tagged' }) lastTagged!: string;
}

/** A local name of an image, in full form: `docker.io/library/busybox:latest`, or with `@sha256:…` as it was pulled or pushed. */
@Entity({ name: 'image_references' })
export class ImageReferenceRow {
  @PrimaryColumn('text') reference!: string;
  @Column('text', { name: 'image_id' }) imageId!: string;
}

/** A manifest of a repository of the registry: bytes, served exactly as they came in. */
@Entity({ name: 'manifests' })
export class ManifestRow {
  @PrimaryColumn('text') repository!: string;
  @PrimaryColumn('text') digest!: string;
  @Column('text', { name: 'media_type' }) mediaType!: string;
  @Column('bytea') content!: Buffer;
  @Column('text', { name: 'subject' }) subject!: string;
  /** Digests it refers to: what garbage collection keeps for its sake. */
  @Column('text', { array: true, name: 'refers_to' }) refersTo!: string[];
}

@Entity({ name: 'tags' })
export class TagRow {
  @PrimaryColumn('text') repository!: string;
  @PrimaryColumn('text') name!: string;
  @Column('text') digest!: string;
}

/** Blobs that may be read through a repository. */
@Entity({ name: 'repository_blobs' })
export class RepositoryBlobRow {
  @PrimaryColumn('text') repository!: string;
  @PrimaryColumn('text') digest!: string;
}
