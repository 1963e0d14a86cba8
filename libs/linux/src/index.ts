export * from './frames.js';
export * from './plan.js';
export * from './shim.js';
export * from './zygote.js';
