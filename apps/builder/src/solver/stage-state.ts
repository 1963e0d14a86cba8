import type { Descriptor, Digest, History, ImageConfig, RuntimeConfig } from '@gantry/oci';

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

export interface Layer {
  readonly diffId: Digest;
  readonly descriptor: Descriptor;
}

/** What a stage is so far: its layers, its configuration, its history, its arguments. */
export class StageState {
  readonly layers: Layer[];
  readonly history: History[];
  readonly config: Mutable<RuntimeConfig>;
  readonly args = new Map<string, string>();
  author = '';
  /** CMD was given in this Dockerfile, not by the base image. */
  hasOwnCommand = false;

  constructor(
    base: ImageConfig | undefined,
    layers: readonly Layer[],
    private readonly platform: { os: string; architecture: string },
  ) {
    this.layers = [...layers];
    this.history = [...(base?.history ?? [])];
    this.config = { ...base?.config };
    this.author = base?.author ?? '';
  }

  /** A stage that another one begins with. */
  fork(): StageState {
    const copy = new StageState(
      {
        ...this.platform,
        rootfs: { type: 'layers', diff_ids: [] },
        config: { ...this.config },
        history: this.history,
        author: this.author,
      },
      this.layers,
      this.platform,
    );
    return copy;
  }

  env(name: string): string | undefined {
    const entry = (this.config.Env ?? []).findLast((item) => item.startsWith(`${name}=`));
    return entry?.slice(name.length + 1);
  }

  setEnv(name: string, value: string): void {
    const others = [...(this.config.Env ?? [])];
    const at = others.findIndex((item) => item.startsWith(`${name}=`));
    if (at >= 0) others[at] = `${name}=${value}`;
    else others.push(`${name}=${value}`);
    this.config.Env = others;
  }

  /** A variable as a Dockerfile sees it: ENV before ARG. */
  variable = (name: string): string | undefined => this.env(name) ?? this.args.get(name);

  remember(createdBy: string, layer: Layer | undefined): void {
    if (layer) this.layers.push(layer);
    this.history.push({
      created: new Date().toISOString(),
      created_by: createdBy,
      comment: 'gantry.dockerfile.v0',
      ...(layer ? {} : { empty_layer: true }),
    });
  }

  toImageConfig(labels: Readonly<Record<string, string>> = {}): ImageConfig {
    const config =
      Object.keys(labels).length > 0 ? { ...this.config, Labels: { ...this.config.Labels, ...labels } } : this.config;
    return {
      ...this.platform,
      created: this.history.at(-1)?.created ?? new Date().toISOString(),
      ...(this.author ? { author: this.author } : {}),
      config,
      rootfs: { type: 'layers', diff_ids: this.layers.map(({ diffId }) => diffId) },
      history: this.history,
    };
  }
}
