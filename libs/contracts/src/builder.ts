export * from './generated/gantry/builder/v1/builds.js';
