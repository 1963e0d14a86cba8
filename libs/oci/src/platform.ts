import { InvalidArgument } from '@gantry/errors';
import type { Platform } from './image.js';

/** Go's names, which OCI uses, for what Node and uname call a machine. */
const ARCHITECTURES: Readonly<Record<string, readonly [architecture: string, variant?: string]>> = {
  x64: ['amd64'],
  x86_64: ['amd64'],
  'x86-64': ['amd64'],
  amd64: ['amd64'],
  ia32: ['386'],
  i386: ['386'],
  i686: ['386'],
  arm64: ['arm64'],
  aarch64: ['arm64'],
  arm: ['arm', 'v7'],
  armhf: ['arm', 'v7'],
  armel: ['arm', 'v6'],
};

/** The platform of the machine this runs on. */
export function hostPlatform(arch: string = process.arch): Platform {
  const [architecture, variant] = ARCHITECTURES[arch] ?? [arch];
  return { os: 'linux', architecture, ...(variant ? { variant } : {}) };
}

const COMPONENT = /^[A-Za-z0-9_.-]+$/;

/** Parses `os/arch[/variant]`, `arch` or `os` as `--platform` takes it. Throws `InvalidArgument` that names it. */
export function parsePlatform(text: string): Platform {
  const parts = text.toLowerCase().split('/');
  if (parts.length > 3 || parts.some((part) => !COMPONENT.test(part))) {
    throw new InvalidArgument(`"${text}": unknown operating system or architecture`, { platform: text });
  }
  const [first = '', second, third] = parts;
  if (second === undefined) {
    if (first === 'linux' || first === 'windows' || first === 'darwin') return { ...hostPlatform(), os: first };
    return normalise('linux', first);
  }
  return normalise(first, second, third);
}

function normalise(os: string, arch: string, variant?: string): Platform {
  const [architecture, implied] = ARCHITECTURES[arch] ?? [arch];
  // arm64/v8 is what every arm64 is: the variant is left out in its normal form.
  const kept = variant === 'v8' && architecture === 'arm64' ? undefined : (variant ?? implied);
  return { os, architecture, ...(kept ? { variant: kept } : {}) };
}

export function formatPlatform(platform: Platform): string {
  return [platform.os, platform.architecture, platform.variant].filter(Boolean).join('/');
}

/** True where an image for `offered` runs on a machine that asked for `wanted`. */
export function satisfies(offered: Platform, wanted: Platform): boolean {
  if (offered.os !== wanted.os || offered.architecture !== wanted.architecture) return false;
  if (wanted.variant === undefined || offered.variant === wanted.variant) return true;
  if (offered.variant === undefined) return wanted.architecture !== 'arm' || wanted.variant === 'v7';
  // A newer arm runs what was built for an older one.
  return wanted.architecture === 'arm' && offered.variant < wanted.variant;
}
