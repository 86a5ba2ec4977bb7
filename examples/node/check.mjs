// Asks a running ThrottleKit server from Node, with nothing but the .proto files.
//
//   go run ./cmd/throttlekit serve        # in one terminal
//   cd examples/node && npm install && npm start -- user:42
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

const { throttlekit } = grpc.loadPackageDefinition(
  loadSync('throttlekit/v1/ratelimiter.proto', { includeDirs: ['../../api'], longs: Number, defaults: true }),
);
const limiter = new throttlekit.v1.RateLimiter('127.0.0.1:50051', grpc.credentials.createInsecure());
const key = process.argv[2] ?? 'user:42';

limiter.Check({ policy: 'default', key }, { deadline: Date.now() + 2000 }, (err, res) => {
  if (err) {
    console.error(`${grpc.status[err.code]}: ${err.details}`);
    process.exitCode = 1;
  } else {
    console.log(res.decision);
  }
  limiter.close();
});
