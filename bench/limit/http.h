// What both limits need: a listening socket, epoll, and just enough HTTP.
#ifndef HTTP_H
#define HTTP_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void die(const char *what) {
	perror(what);
	exit(1);
}

// listen_on opens 127.0.0.1:port, and an epoll descriptor that watches it.
static int listen_on(int port, int *epoll) {
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);

	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
	if (listen(fd, 4096) < 0) die("listen");
	*epoll = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	epoll_ctl(*epoll, EPOLL_CTL_ADD, fd, &event);
	fprintf(stderr, "ready\n");
	return fd;
}

// accept_all takes every connection that waits.
static void accept_all(int listener, int epoll, void (*opened)(int fd)) {
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), on = 1;
		if (fd < 0) return;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		opened(fd);
		struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
		epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	}
}

// find returns where a text begins in data, or NULL.
static const char *find(const char *data, size_t size, const char *text) {
	return memmem(data, size, text, strlen(text));
}

// request_size is the size of the first request in data, or 0 if it is not whole.
static size_t request_size(const char *data, size_t size, const char **body, size_t *length) {
	const char *end = find(data, size, "\r\n\r\n");
	if (!end) return 0;
	*body = end + 4;
	*length = 0;
	const char *field = find(data, end - data, "Content-Length: ");
	if (field) *length = strtoul(field + 16, NULL, 10);
	size_t total = *body - data + *length;
	return total <= size ? total : 0;
}

// number reads the number after a text, or 0.
static long number(const char *data, size_t size, const char *text) {
	const char *at = find(data, size, text);
	return at ? strtol(at + strlen(text), NULL, 10) : 0;
}

#define WRITE(fd, data, size) send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)

#endif
