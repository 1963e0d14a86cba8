export * from './layer-tool.js';
export * from './decompress.js';
