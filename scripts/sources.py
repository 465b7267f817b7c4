#!/usr/bin/env python3
"""sources.py DIR...: the C and C++ sources below, one a line, sorted: so that a new file needs no entry in a list."""
import os
import sys

for top in sys.argv[1:]:
    for folder, folders, files in sorted(os.walk(top)):
        for name in sorted(files):
            if name.endswith((".c", ".cc")):
                print(os.path.join(folder, name))
