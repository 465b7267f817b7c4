/* command - what `troupe NAME` runs.  Each gets what follows its name and returns the exit status (contract 5). */
#ifndef COMMAND_COMMAND_H
#define COMMAND_COMMAND_H

#include "base/config.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

int command_up(const struct config *config, int argc, char **argv);
int command_gateway(const struct config *config, int argc, char **argv);
int command_preprocess(const struct config *config, int argc, char **argv);
int command_inference(const struct config *config, int argc, char **argv);
int command_notifier(const struct config *config, int argc, char **argv);
int command_init(const struct config *config, int argc, char **argv);
int command_doctor(const struct config *config, int argc, char **argv);
int command_character(const struct config *config, int argc, char **argv);

#endif
