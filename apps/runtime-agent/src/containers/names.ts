import { randomInt } from 'node:crypto';

const ADJECTIVES =
  `able amber ardent bold brave breezy bright brisk calm candid cheerful clever cosy crisp curious daring deft eager earnest
  easy fabled fair faithful fearless fleet fond frank gallant gentle glad golden graceful hardy hearty honest humble jolly keen kind lively
  loyal lucid mellow merry mild modest neat nimble noble patient placid plucky polite proud quick quiet radiant ready serene sharp silent
  sincere sleek smart snug sober spry steady sturdy sunny swift tender tidy tranquil trusty upbeat vivid warm wise witty zesty`.split(
    /\s+/,
  );
const SURNAMES =
  `abel ampere babbage banach bell bernoulli bohr boole bose cantor cauchy cayley chandra clarke codd cray curie darwin dijkstra
  dirac edison einstein engelbart erdos euclid euler faraday fermat fermi feynman floyd fourier franklin galileo galois gauss germain godel
  goodall gosling hamilton heaviside hilbert hoare hopper hubble huygens jacobi joule kepler keller khayyam knuth kovalevskaya lagrange lamarr
  lamport laplace leibniz liskov lovelace maxwell meitner mendel minsky mirzakhani morse napier nash newton noether nobel ohm pascal pasteur
  pauling perlman planck poincare ramanujan riemann ritchie rubin sagan shannon stallman stroustrup tesla thompson torvalds turing volta
  wiles wing wozniak yalow`.split(/\s+/);

/** A name such as `plucky_turing` for a container that was given none. */
export function randomName(isTaken: (name: string) => boolean): string {
  for (let attempt = 0; ; attempt++) {
    const name = `${ADJECTIVES[randomInt(ADJECTIVES.length)]}_${SURNAMES[randomInt(SURNAMES.length)]}${attempt < 4 ? '' : randomInt(10_000)}`;
    if (!isTaken(name)) return name;
  }
}
