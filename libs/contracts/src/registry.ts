export * from './generated/gantry/registry/v1/images.js';
