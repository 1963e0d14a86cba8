import { Conflict, InvalidArgument } from '@gantry/errors';
import { formatReference, parseReference, withDefaultTag, type Reference } from '@gantry/oci';
import type { Image } from './image.js';
import { noSuchImage } from './image.js';

/** All images in memory, found by every name they have: creating a container asks for one each time. Pure. */
export class ImageIndex {
  readonly #byId = new Map<string, Image>();
  readonly #byReference = new Map<string, Image>();

  get all(): Image[] {
    return [...this.#byId.values()];
  }

  add(image: Image): void {
    this.#byId.set(image.row.id, image);
    for (const reference of image.references) this.#byReference.set(reference, image);
  }

  remove(image: Image): void {
    this.#byId.delete(image.row.id);
    for (const reference of image.references) this.#byReference.delete(reference);
  }

  byId(id: string): Image | undefined {
    return this.#byId.get(id);
  }

  byReference(reference: string): Image | undefined {
    return this.#byReference.get(reference);
  }

  /** Moves a name to an image, as `docker tag` does. Gives the image that had it before. */
  point(reference: string, image: Image): Image | undefined {
    const before = this.#byReference.get(reference);
    before?.references.delete(reference);
    image.references.add(reference);
    this.#byReference.set(reference, image);
    return before;
  }

  drop(reference: string): void {
    this.#byReference.get(reference)?.references.delete(reference);
    this.#byReference.delete(reference);
  }

  /** By ID, unique ID prefix, or name. Throws `NotFound` in Docker's words, `Conflict` where a prefix fits several. */
  resolve(text: string): Image {
    const exact = this.#byId.get(text) ?? this.#byId.get(`sha256:${text}`);
    if (exact) return exact;
    const named = this.#named(text);
    if (named.image) return named.image;
    const prefix = text.startsWith('sha256:') ? text : `sha256:${text}`;
    if (/^sha256:[a-f0-9]{1,64}$/.test(prefix)) {
      const matches = this.all.filter(({ row }) => row.id.startsWith(prefix));
      if (matches.length > 1) throw new Conflict(`image ID prefix ${text} fits ${matches.length} images`);
      if (matches[0]) return matches[0];
    }
    throw noSuchImage(text, named.reference);
  }

  #named(text: string): { image: Image | undefined; reference: Reference | undefined } {
    let reference: Reference;
    try {
      reference = parseReference(text);
    } catch (error) {
      // A full ID looks like no reference; it is merely not there.
      if (/^(sha256:)?[a-f0-9]{64}$/.test(text)) return { image: undefined, reference: undefined };
      throw error instanceof InvalidArgument ? error : new InvalidArgument(String(error));
    }
    if (reference.digest !== undefined) {
      const { domain, path, digest } = reference;
      return { image: this.#byReference.get(formatReference({ domain, path, digest })), reference };
    }
    return { image: this.#byReference.get(formatReference(withDefaultTag(reference))), reference };
  }
}
