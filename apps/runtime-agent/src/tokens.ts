/** Injection tokens of the agent's shared connections. */
export const REGISTRY = Symbol('connection to the registry');
