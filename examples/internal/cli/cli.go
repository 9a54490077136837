// Package cli is shared by the programs: it has the flags for a server and its credentials,
// and reports what is wrong with a command line.
package cli

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A UsageError says what is wrong with the command line.
type UsageError string

func (e UsageError) Error() string { return string(e) }

// Usagef returns a UsageError.
func Usagef(format string, args ...any) error { return UsageError(fmt.Sprintf(format, args...)) }

// Parse parses the command line into the flags of flag.CommandLine. With -h it prints the
// help and the flags, and ends the program. Any error is a UsageError of one line.
func Parse(help string) error {
	flags := flag.CommandLine
	flags.Init(program(), flag.ContinueOnError)
	flags.SetOutput(io.Discard) // otherwise an unknown flag is followed by all of the help
	err := flags.Parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		flags.SetOutput(os.Stdout)
		fmt.Print(help)
		flags.PrintDefaults()
		os.Exit(0)
	case err != nil:
		return UsageError(err.Error())
	}
	return nil
}

// Exit ends the program if there is an error: with status 2 if it is a UsageError, and with 1
// otherwise.
func Exit(err error) {
	if usage, ok := errors.AsType[UsageError](err); ok {
		fmt.Fprintf(os.Stderr, "%s: %v; see %[1]s -h\n", program(), usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func program() string { return filepath.Base(os.Args[0]) }
