export * from './ignore.js';
