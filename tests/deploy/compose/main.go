// compose: reads a compose file as `docker compose config` does, with the library under it, in all profiles; says what is
// wrong with it and exits with 1.  scripts/deploy-lint.sh builds and runs it.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions(os.Args[1:], cli.WithWorkingDirectory("."), cli.WithProfiles([]string{"*"}))
	if err == nil {
		_, err = options.LoadProject(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
