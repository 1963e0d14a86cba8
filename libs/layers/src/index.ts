export * from './layer-tool.js';
