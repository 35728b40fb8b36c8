package ui

import (
	"log/slog"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/internal/printable"
)

const (
	flagLogLevel  = "log-level"
	flagLogFormat = "log-format"

	envLogLevel  = "ARTSTORE_PKI_LOG_LEVEL"
	envLogFormat = "ARTSTORE_PKI_LOG_FORMAT"

	logText = "text"
	logJSON = "json"
)

// logLevels are the values of --log-level, and logFormats those of --log-format.
var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	logFormats = []string{logText, logJSON}
)

// LogChoices returns the values of each flag of LogFlags.
func LogChoices() map[string][]string {
	return map[string][]string{flagLogLevel: logLevels, flagLogFormat: logFormats}
}

// LogFlags returns --log-level and --log-format, whose values go to u before the action runs.
// usual is the level of the command without the flag.
func (u *UI) LogFlags(usual slog.Level) []cli.Flag {
	const category = "log"
	return []cli.Flag{
		&cli.StringFlag{Name: flagLogFormat, Category: category, EnvVars: []string{envLogFormat}, DefaultText: logText,
			Usage: "`FORMAT` of all that goes to stderr: text, or json with one object a line",
			Action: func(_ *cli.Context, name string) error {
				if name != "" && name != logText && name != logJSON {
					return UsageErrorf("--%s %q: want %s", flagLogFormat, printable.Clean(name), strings.Join(logFormats, " or "))
				}
				u.log.json = name == logJSON
				return nil
			}},
		&cli.StringFlag{Name: flagLogLevel, Category: category, EnvVars: []string{envLogLevel}, DefaultText: strings.ToLower(usual.String()),
			Usage: "least `LEVEL` that is logged to stderr: " + strings.Join(logLevels, ", ") + "; info has each change of state: a rotated certificate, a new token, a pause",
			Action: func(_ *cli.Context, name string) error {
				if name == "" { // an empty variable
					return nil
				}
				var level slog.Level
				if err := level.UnmarshalText([]byte(name)); err != nil || strings.ContainsAny(name, "+-") {
					return UsageErrorf("--%s %q: want %s", flagLogLevel, printable.Clean(name), strings.Join(logLevels, ", "))
				}
				u.log.level = &level
				return nil
			}},
	}
}

// Logger returns the logger for the packages that a command uses. It writes to stderr, from the
// level of --log-level up, or without that flag from usual up.
func (u *UI) Logger(usual slog.Level) *slog.Logger {
	if u.log.level != nil {
		usual = *u.log.level
	}
	options := &slog.HandlerOptions{Level: usual}
	if u.log.json {
		return slog.New(slog.NewJSONHandler(u.Err, options))
	}
	return slog.New(slog.NewTextHandler(u.Err, options))
}
