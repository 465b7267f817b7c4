/*
 * main - options -> configuration -> the command.
 * `troupe up` goes on in command/up.c: wiring -> roles -> loop -> drain.
 */
#include "base/log.h"
#include "command/command.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

static const struct command {
    const char *name, *what;
    int (*run)(const struct config *config, int argc, char **argv);
} commands[] = {
    {"up", "run everything in this process: gateway, preprocess, inference, notifier", command_up},
    {"gateway", "one role as a process: holds the clients' connections", command_gateway},
    {"preprocess", "one role: cleans messages, chooses the worker", command_preprocess},
    {"inference", "one role: writes the replies", command_inference},
    {"notifier", "one role: sends replies to the gateways", command_notifier},
    {"init", "make schemas, queues and buckets on the servers; harmless twice", command_init},
    {"doctor", "reach everything that is configured; say what is wrong and how to mend it", command_doctor},
    {"character", "import, list, show, export or remove characters", command_character},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

static void usage(FILE *to)
{
    fputs("usage: troupe COMMAND [OPTION...]\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].what);
    fputs("  env          print every key of the configuration with its default (.env.example)\n"
          "\ntroupe COMMAND --help tells more. Keys come from the environment or from .env here.\n",
          to);
}

/* Connections are files: take as many as the system lets us have. */
static void raise_file_limit(void)
{
    struct rlimit lim;

    if (getrlimit(RLIMIT_NOFILE, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &lim) != 0)
            log_event(LOG_WARN, "main.file_limit", "limit=%lu", (unsigned long)lim.rlim_cur);
    }
}

/* The heap's end goes up and down by more than 128 KiB within a turn: giving it back each time is two calls of the system. */
static void keep_heap(void)
{
    mallopt(M_TRIM_THRESHOLD, 2 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

int main(int argc, char **argv)
{
    struct config *config = NULL;
    enum log_level level = LOG_INFO;
    struct tr_err err = {0};
    int status = EXIT_USAGE;

    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("troupe " TROUPE_VERSION);
        return EXIT_DONE;
    }
    if (strcmp(argv[1], "env") == 0) {
        config_print_example(stdout);
        return EXIT_DONE;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a full disk to us: an error, not an end */
    keep_heap();
    raise_file_limit();
    if (config_load(".env", &config, &err) != TR_OK) {
        fprintf(stderr, "troupe: %s\n", tr_err_text(&err));
        return EXIT_USAGE;
    }
    if (!log_parse_level(config_str(config, "TROUPE_LOG_LEVEL"), &level)) {
        fprintf(stderr, "troupe: TROUPE_LOG_LEVEL: '%.40s' is none of debug, info, warn, error\n",
                config_str(config, "TROUPE_LOG_LEVEL"));
        config_free(config);
        return EXIT_USAGE;
    }
    log_set_level(level);
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            status = commands[i].run(config, argc - 2, argv + 2);
            config_free(config);
            return status;
        }
    fprintf(stderr, "troupe: unknown command '%.40s'\n\n", argv[1]);
    usage(stderr);
    config_free(config);
    return EXIT_USAGE;
}
