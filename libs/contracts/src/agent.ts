export {
  protobufFileName,
  protobufPackage,
  type DeepPartial,
  type MessageFns,
  type ServerStreamingMethodResult,
} from './generated/gantry/agent/v1/containers.js';
export * from './generated/gantry/agent/v1/build_steps.js';
export * from './generated/gantry/agent/v1/containers.js';
export * from './generated/gantry/agent/v1/networks.js';
