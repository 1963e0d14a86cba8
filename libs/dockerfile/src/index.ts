export * from './dockerfile-error.js';
export * from './ignore.js';
export * from './parser.js';
export * from './stages.js';
export * from './words.js';
