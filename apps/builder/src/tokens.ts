/** Injection tokens of the clients of other services. */
export const IMAGES = Symbol('images');
export const BLOBS = Symbol('blobs');
export const STEPS = Symbol('build steps');
