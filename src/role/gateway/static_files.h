/* static_files - the chat page's files: struct embedded_file static_files[] of base/embedded.h. */
#include "base/embedded.h"
#define static_file embedded_file
