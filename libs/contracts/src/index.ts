/** The contract between services, one namespace a service. Import the one you need: `import { registry } from '@gantry/contracts'`. */
export * as agent from './agent.js';
export * as builder from './builder.js';
export * as common from './common.js';
export * as registry from './registry.js';
