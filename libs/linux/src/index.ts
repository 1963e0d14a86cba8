export * from './frames.js';
export * from './plan.js';
export * from './shim.js';
export * from './zygote.js';
export { createNetworkNamespace, deleteNetworkNamespace, errnoOf, runNftables } from './addon.js';
export * as rtnetlink from './rtnetlink.js';
export { compileSeccomp } from './seccomp/compile.js';
export { DEFAULT_PROFILE } from './seccomp/default-profile.js';
export type { SeccompProfile } from './seccomp/profile.js';
