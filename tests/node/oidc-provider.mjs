// A real OpenID Connect provider for tests, on a free port of loopback. It prints its address, then answers one line for each line it reads:
//   rotate    signs with fresh keys from now on; the old ones stay published
//   withdraw  publishes the newest keys alone
//   slow N    answers everything N milliseconds late; 0 ends it
// Programs get signed access tokens with the client credentials grant (RFC 6749 section 4.4) for the resource urn:keystead:ALG.
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import Provider from 'oidc-provider'

console.info = console.warn = console.error // stdout is for answers

const kinds = {
  RS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => generateKeyPairSync('ed25519'),
}

const fresh = () =>
  Object.entries(kinds).map(([alg, make]) => ({ ...make().privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: randomUUID() }))

const clients = Object.fromEntries(JSON.parse(process.argv[2]).map((client) => [client.id, client]))
let keys = fresh()
let delay = 0
let answer

const build = (issuer) =>
  new Provider(issuer, {
    jwks: { keys },
    clients: Object.values(clients).map(({ id, secret }) => ({
      client_id: id,
      client_secret: secret,
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource, client) => ({
          scope: 'mail',
          audience: clients[client.clientId].audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: clients[client.clientId].lifetime ?? 600,
          jwt: { sign: { alg: resource.split(':').at(-1) } },
        }),
      },
    },
    extraTokenClaims: (ctx, token) => clients[token.clientId].claims,
  }).callback()

const server = createServer((request, response) => setTimeout(() => answer(request, response), delay))
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`
  answer = build(issuer)
  console.log(issuer)
  createInterface({ input: process.stdin })
    .on('line', (line) => {
      const [command, value] = line.split(' ')
      if (command === 'rotate') keys = [...fresh(), ...keys]
      if (command === 'withdraw') keys = keys.slice(0, Object.keys(kinds).length)
      if (command === 'slow') delay = Number(value)
      answer = build(issuer)
      console.log('done')
    })
    .on('close', () => process.exit(0))
})
