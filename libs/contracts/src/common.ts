export * from './generated/gantry/common/v1/common.js';
