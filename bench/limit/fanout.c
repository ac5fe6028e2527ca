// The limit of a fan-out: one thread, and one send() for each subscriber.
//
//   fanout PORT
//
// GET /sub?channel=K    an SSE stream; Last-Event-ID replays from a ring of 64
// POST /pub?channel=K   the body's lines are messages; all that one read brings
//                       goes out in one send() for each subscriber
//
// It parses no more than it must, and drops what a socket has no room for.
#include "http.h"

enum { FILES = 20000, CHANNELS = 16384, RING = 64, BUFFER = 1 << 18 };

struct message {
	long id;
	char *frame;
	size_t size;
};

struct channel {
	char name[32];
	int *subscribers;
	int count, room;
	long last;
	struct message *ring;
};

static struct channel channels[CHANNELS];
static struct {
	struct channel *channel; // subscribed to
	int place;               // in its subscribers
} conns[FILES];
static int epoll;
static char in[BUFFER + 1], out[2 * BUFFER];

// channel_of finds the channel that a request names, or makes it.
static struct channel *channel_of(const char *request, size_t size) {
	const char *name = find(request, size, "channel=");
	if (!name) return NULL;
	name += 8;
	size_t length = strcspn(name, " &");
	if (length > 31) length = 31;
	uint32_t hash = 2166136261u;
	for (size_t i = 0; i < length; i++) hash = (hash ^ (uint8_t)name[i]) * 16777619u;
	for (;; hash++) {
		struct channel *c = &channels[hash % CHANNELS];
		if (!c->name[0]) {
			memcpy(c->name, name, length);
			c->ring = calloc(RING, sizeof *c->ring);
		}
		if (strlen(c->name) == length && !memcmp(c->name, name, length)) return c;
	}
}

static void subscribe(int fd, struct channel *c) {
	if (c->count == c->room) {
		c->room = c->room ? 2 * c->room : 1;
		c->subscribers = realloc(c->subscribers, c->room * sizeof(int));
	}
	conns[fd].channel = c;
	conns[fd].place = c->count;
	c->subscribers[c->count++] = fd;
}

static void leave(int fd) {
	struct channel *c = conns[fd].channel;
	if (c) {
		int last = c->subscribers[--c->count];
		c->subscribers[conns[fd].place] = last;
		conns[last].place = conns[fd].place;
		conns[fd].channel = NULL;
	}
	close(fd);
}

static void opened(int fd) { conns[fd].channel = NULL; }

// frame_line writes one message as a chunk with an SSE event, about as long as
// a server's, and keeps it in the ring.
static size_t frame_line(struct channel *c, const char *line, size_t length, char *to) {
	long id = ++c->last;
	char tail[64];
	int tail_size = sprintf(tail, "\nid: limit00000000-%ld\n\n", id);
	size_t size = sprintf(to, "%zx\r\ndata: ", 6 + length + tail_size);
	memcpy(to + size, line, length);
	size += length;
	memcpy(to + size, tail, tail_size);
	size += tail_size;
	memcpy(to + size, "\r\n", 2);
	size += 2;
	struct message *m = &c->ring[id % RING];
	m->frame = realloc(m->frame, size);
	memcpy(m->frame, to, size);
	m->size = size;
	m->id = id;
	return size;
}

static void get(int fd, const char *request, size_t size) {
	struct channel *c = channel_of(request, size);
	if (!c || conns[fd].channel) return;
	size_t n = sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	                        "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n"
	                        "3\r\n:\n\n\r\n");
	if (find(request, size, "Last-Event-ID: ")) {
		long after = number(request, size, "Last-Event-ID: limit00000000-");
		for (long id = after + 1; id <= c->last; id++) {
			struct message *m = &c->ring[id % RING];
			if (m->id != id) continue;
			memcpy(out + n, m->frame, m->size);
			n += m->size;
		}
	}
	WRITE(fd, out, n);
	subscribe(fd, c);
}

static void fan_out(struct channel *c, size_t size) {
	for (int i = 0; i < c->count; i++) WRITE(c->subscribers[i], out, size);
}

// serve handles what one read brought. The frames of consecutive publishes to
// one channel gather in out.
static void serve(int fd, size_t size) {
	const char *at = in, *end = in + size;
	struct channel *pending = NULL;
	size_t gathered = 0;
	int answers = 0;
	while (at < end) {
		const char *body;
		size_t length, whole;
		while (!(whole = request_size(at, end - at, &body, &length))) {
			// The rest comes at once: a publisher does not stop in the middle.
			size_t rest = end - at;
			memmove(in, at, rest);
			ssize_t n = recv(fd, in + rest, BUFFER - rest, 0);
			if (n == 0 || (n < 0 && errno != EAGAIN)) return;
			at = in;
			end = in + rest + (n > 0 ? n : 0);
		}
		if (*at == 'G') {
			get(fd, at, whole);
			at += whole;
			continue;
		}
		struct channel *c = channel_of(at, body - at);
		if (pending && (c != pending || gathered > BUFFER / 2)) {
			fan_out(pending, gathered);
			gathered = 0;
		}
		pending = c;
		const char *line = body, *stop = body + length;
		while (c && line < stop) {
			const char *next = memchr(line, '\n', stop - line);
			if (!next) next = stop;
			gathered += frame_line(c, line, next - line, out + gathered);
			line = next + 1;
		}
		answers++;
		at += whole;
	}
	if (pending) fan_out(pending, gathered);
	static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
	size_t n = 0;
	for (; answers > 0; answers--, n += sizeof ok - 1) memcpy(out + n, ok, sizeof ok - 1);
	if (n) WRITE(fd, out, n);
}

int main(int argc, char **argv) {
	int listener = listen_on(atoi(argv[argc - 1]), &epoll);
	struct epoll_event events[256];
	for (;;) {
		int n = epoll_wait(epoll, events, 256, -1);
		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;
			if (fd == listener) {
				accept_all(listener, epoll, opened);
				continue;
			}
			ssize_t size = recv(fd, in, BUFFER, 0);
			if (size > 0) {
				in[size] = 0;
				serve(fd, size);
			} else if (size == 0 || errno != EAGAIN)
				leave(fd);
		}
	}
}
