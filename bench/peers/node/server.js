// A server on one of four libraries.
//
//   node server.js faye|cometd-nodejs-server|socket.io|sockjs PORT
//
// Faye is published to by its own protocol; the others by
// POST /pub?channel=K, whose body is the message.
'use strict';

const http = require('http');
const [name, port] = process.argv.slice(2);

// publishing makes a handler of requests to publish.
function publishing(publish) {
  return (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    if (url.pathname !== '/pub') return;
    let body = '';
    request.on('data', (data) => { body += data; });
    request.on('end', () => {
      publish(url.searchParams.get('channel'), body);
      response.writeHead(200, { 'Content-Length': 2 });
      response.end('{}');
    });
  };
}

const servers = {
  faye(server) {
    const faye = require('faye');
    new faye.NodeAdapter({ mount: '/faye', timeout: 600 }).attach(server);
  },

  'cometd-nodejs-server'(server) {
    const cometd = require('cometd-nodejs-server').createCometDServer({ timeout: 600e3, maxInterval: 600e3 });
    const publish = publishing((channel, body) => {
      cometd.createServerChannel('/' + channel).publish(null, body);
    });
    server.on('request', (request, response) => {
      if (request.url.startsWith('/pub')) publish(request, response);
      else cometd.handle(request, response);
    });
  },

  // A client is put into the room that its handshake names.
  'socket.io'(server) {
    const { Server } = require('socket.io');
    const io = new Server(server, { pingInterval: 3600e3, serveClient: false, transports: ['websocket'], maxHttpBufferSize: 1e7 });
    io.on('connection', (socket) => socket.join(socket.handshake.query.channel));
    server.on('request', publishing((channel, body) => io.to(channel).emit('m', body)));
  },

  // A client is given the channel that its session's id begins with.
  sockjs(server) {
    const channels = new Map();
    const sockets = require('sockjs').createServer({
      prefix: '/sockjs', log: () => {}, response_limit: 1 << 30, heartbeat_delay: 3600e3,
    });
    sockets.on('connection', (connection) => {
      const channel = connection.url.split('/')[3].split('.')[0];
      if (!channels.has(channel)) channels.set(channel, new Set());
      channels.get(channel).add(connection);
      connection.on('close', () => channels.get(channel).delete(connection));
    });
    sockets.installHandlers(server);
    server.on('request', publishing((channel, body) => {
      for (const connection of channels.get(channel) ?? []) connection.write(body);
    }));
  },
};

const server = http.createServer({ keepAliveTimeout: 3600e3 });
servers[name](server);
server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
