// The limit of long polling: one thread, keep-alive, one recv() and one send()
// for each cycle.
//
//   poll PORT
//
// GET /poll?after=N   held until there is a message after N
// POST /pub           the body is a message
//
// A message is answered to all that are held; one that comes back too late for
// it gets it at once, from a ring of 64.
#include "http.h"

enum { FILES = 20000, RING = 64, BUFFER = 1 << 16 };

static int held[FILES], place[FILES], holding, epoll;
static long last;
static struct {
	char data[1024];
	size_t size;
} ring[RING];
static char in[BUFFER + 1];

static void opened(int fd) { place[fd] = -1; }

static void release(int fd) {
	if (place[fd] < 0) return;
	int moved = held[--holding];
	held[place[fd]] = moved;
	place[moved] = place[fd];
	place[fd] = -1;
}

static void publish(int fd, const char *body, size_t length) {
	char json[512];
	last++;
	int n = sprintf(json, "{\"cursor\":\"%ld\",\"messages\":[{\"id\":\"limit00000000-%ld\",\"data\":\"%.*s\"}]}",
	                last, last, (int)(length > 300 ? 300 : length), body);
	ring[last % RING].size = sprintf(ring[last % RING].data,
	                                 "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	                                 "Cache-Control: no-store\r\nContent-Length: %d\r\n\r\n%s", n, json);
	for (int i = 0; i < holding; i++) {
		WRITE(held[i], ring[last % RING].data, ring[last % RING].size);
		place[held[i]] = -1;
	}
	holding = 0;
	static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
	WRITE(fd, ok, sizeof ok - 1);
}

static void serve(int fd, size_t size) {
	const char *body;
	size_t length;
	if (!request_size(in, size, &body, &length)) return;
	if (*in == 'P') {
		publish(fd, body, length);
		return;
	}
	long after = number(in, size, "after=");
	if (find(in, size, "after=") && after < last) {
		long next = after + 1 > last - RING + 1 ? after + 1 : last - RING + 1;
		WRITE(fd, ring[next % RING].data, ring[next % RING].size);
		return;
	}
	place[fd] = holding;
	held[holding++] = fd;
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
			} else if (size == 0 || errno != EAGAIN) {
				release(fd);
				close(fd);
			}
		}
	}
}
