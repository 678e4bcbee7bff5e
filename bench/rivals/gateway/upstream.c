/* The upstream that gateways are measured against: one thread, epoll, answers that were joined at the start.
 *
 * upstream PORT FOLDER DELAY_MS EVENTS EVERY_MS
 *
 * FOLDER holds, of gemini and openai each, .json, .event and .final. A request is read whole (its
 * Content-Length or its chunks), then answered: by path with the OpenAI or the Gemini answer; where it asks
 * for a stream, with EVENTS events, one each EVERY_MS, of which the final one says why it stopped; after
 * DELAY_MS. Connections are kept alive.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 256 * 1024, READY = 512 };

typedef struct { char *bytes; size_t size; } Text;

typedef struct Connection {
  int socket, openai, events_left;
  double due;               /* of the next thing to send; 0: nothing is waiting */
  struct Connection *next;  /* of those that wait */
  size_t filled;
  char buffer[ROOM];
} Connection;

static Text answers[2], events[2], finals[2], head, last[2];
static Connection *waiting;
static double delay, every;
static int count;

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

static void fail(const char *what) { perror(what); exit(1); }

static Text read_file(const char *folder, const char *name) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) fail(path);
  Text text = {malloc(1 << 20), 0};
  text.size = fread(text.bytes, 1, 1 << 20, file);
  fclose(file);
  return text;
}

static Text joined(const char *before, Text body, const char *after) {
  Text text = {malloc(strlen(before) + body.size + strlen(after)), 0};
  memcpy(text.bytes, before, text.size = strlen(before));
  memcpy(text.bytes + text.size, body.bytes, body.size);
  text.size += body.size;
  memcpy(text.bytes + text.size, after, strlen(after));
  text.size += strlen(after);
  return text;
}

static Text whole(Text body) {
  char before[512];
  snprintf(before, sizeof before,
           "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=UTF-8\r\nServer: upstream\r\n"
           "X-Request-Id: 0123456789abcdef\r\nContent-Length: %zu\r\n\r\n", body.size);
  return joined(before, body, "");
}

static Text chunk(Text body) {
  char before[32];
  snprintf(before, sizeof before, "%zx\r\n", body.size);
  return joined(before, body, "\r\n");
}

static void drop(Connection *one) {
  for (Connection **at = &waiting; *at; at = &(*at)->next)
    if (*at == one) { *at = one->next; break; }
  close(one->socket);
  free(one);
}

/* Answers are small and peers read: what does not fit into the socket's buffer ends the connection. */
static int say(Connection *one, Text text) {
  return send(one->socket, text.bytes, text.size, MSG_NOSIGNAL) == (ssize_t)text.size;
}

static char *find(char *from, size_t size, const char *what) { return memmem(from, size, what, strlen(what)); }

/* How long the first request in the buffer is; 0: it is not there yet; -1: it is none. */
static long length_of(Connection *one, char **body) {
  char *end = find(one->buffer, one->filled, "\r\n\r\n");
  if (!end) return one->filled == ROOM ? -1 : 0;
  *body = end + 4;
  size_t rest = one->filled - (*body - one->buffer);
  for (char *line = one->buffer; line < end; line = find(line, end + 2 - line, "\r\n") + 2) {
    if (!strncasecmp(line, "content-length:", 15)) {
      size_t size = strtoul(line + 15, NULL, 10);
      return rest >= size ? (*body - one->buffer) + (long)size : 0;
    }
    if (!strncasecmp(line, "transfer-encoding:", 18)) {
      char *stop = find(*body, rest, "0\r\n\r\n");
      return stop ? stop + 5 - one->buffer : 0;
    }
  }
  return *body - one->buffer;
}

static int answer(Connection *one, long size, char *body) {
  char *line_end = find(one->buffer, size, "\r\n");
  size_t line = line_end - one->buffer, rest = size - (body - one->buffer);
  one->openai = find(one->buffer, line, "/completions") != NULL;
  int stream = find(one->buffer, line, "stream") || find(body, rest, "\"stream\":true") ||
               find(body, rest, "\"stream\": true");
  memmove(one->buffer, one->buffer + size, one->filled -= size);
  one->events_left = stream ? count : 0;
  if (!stream && delay == 0) return say(one, answers[one->openai]);
  if (stream && delay == 0 && !say(one, head)) return 0;
  one->due = now_ms() + (delay > 0 ? delay : every);
  one->next = waiting;
  waiting = one;
  return 1;
}

static int serve(Connection *one) {
  while (one->due == 0) {
    char *body;
    long size = length_of(one, &body);
    if (size <= 0) return size == 0;
    if (!answer(one, size, body)) return 0;
  }
  return 1;
}

static int step(Connection *one) {
  if (one->events_left == 0) {
    one->due = 0;
    return say(one, answers[one->openai]);
  }
  if (delay > 0 && one->events_left == count && !say(one, head)) return 0;
  if (!say(one, (one->events_left == 1 ? finals : events)[one->openai])) return 0;
  one->due += every; /* no drift */
  if (--one->events_left > 0) return 1;
  one->due = 0;
  return say(one, last[one->openai]);
}

static void turn_waiting(void) {
  double now = now_ms();
  for (Connection *one = waiting, *next; one; one = next) {
    next = one->next;
    if (one->due > now) continue;
    if (!step(one)) { drop(one); continue; }
    if (one->due != 0) continue;
    for (Connection **at = &waiting; *at; at = &(*at)->next)
      if (*at == one) { *at = one->next; break; }
    if (!serve(one)) drop(one);
  }
}

static int listener(int port) {
  int one = 1, found = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(found, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(found, (struct sockaddr *)&at, sizeof at) || listen(found, 4096)) fail("listen");
  return found;
}

static void welcome(int poll, int server) {
  int one = 1, found;
  while ((found = accept4(server, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    setsockopt(found, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    Connection *made = calloc(1, sizeof *made);
    made->socket = found;
    struct epoll_event wish = {.events = EPOLLIN, .data.ptr = made};
    epoll_ctl(poll, EPOLL_CTL_ADD, found, &wish);
  }
}

static void hear(Connection *one) {
  for (;;) {
    ssize_t got = recv(one->socket, one->buffer + one->filled, ROOM - one->filled, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) { drop(one); return; }
    one->filled += got;
    if (!serve(one)) { drop(one); return; }
  }
}

int main(int argc, char **argv) {
  if (argc != 6) { fprintf(stderr, "upstream PORT FOLDER DELAY_MS EVENTS EVERY_MS\n"); return 2; }
  signal(SIGPIPE, SIG_IGN);
  delay = atof(argv[3]), count = atoi(argv[4]), every = atof(argv[5]);
  const char *names[2] = {"gemini", "openai"};
  for (int which = 0; which < 2; which++) {
    char name[64];
    snprintf(name, sizeof name, "%s.json", names[which]);
    answers[which] = whole(read_file(argv[2], name));
    snprintf(name, sizeof name, "%s.event", names[which]);
    events[which] = chunk(read_file(argv[2], name));
    snprintf(name, sizeof name, "%s.final", names[which]);
    finals[which] = chunk(read_file(argv[2], name));
  }
  Text none = {"", 0}, done = {"data: [DONE]\n\n", 14};
  head = joined("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", none, "");
  last[0] = joined("0\r\n\r\n", none, "");
  last[1] = chunk(done);
  last[1] = joined("", last[1], "0\r\n\r\n");
  int server = listener(atoi(argv[1])), poll = epoll_create1(0);
  struct epoll_event wish = {.events = EPOLLIN, .data.ptr = NULL}, ready[READY];
  epoll_ctl(poll, EPOLL_CTL_ADD, server, &wish);
  for (;;) {
    int found = epoll_wait(poll, ready, READY, waiting ? 1 : -1);
    for (int at = 0; at < found; at++)
      if (ready[at].data.ptr) hear(ready[at].data.ptr); else welcome(poll, server);
    if (waiting) turn_waiting();
  }
}
