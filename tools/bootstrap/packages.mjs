/** Debian packages that Gantry needs, and what for. */
export const RUN_PACKAGES = {
  gcc: 'compiles the native programs',
  make: 'builds the native programs',
  'libc6-dev': 'headers for the native programs',
  'linux-libc-dev': 'kernel headers for the native programs',
  'libseccomp-dev': 'compiles system call filters',
  'libnftables-dev': 'writes firewall rules in process',
  'libssl-dev': 'digests files',
  'redis-server': 'the queue',
  git: 'builds from Git repositories',
};

/** What the tests need in addition. */
export const TEST_PACKAGES = {
  'busybox-static': 'the smallest base image',
  skopeo: 'copies images as other tools do',
  attr: 'looks at extended attributes',
  nftables: 'looks at firewall rules',
  iproute2: 'looks at links and namespaces',
  mmdebstrap: 'makes a Debian base image',
  curl: 'speaks to the APIs as a CI job does',
};
