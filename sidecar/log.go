package main

import (
	"io"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tandem/sidecar/config"
)

// newLogger writes one line for each entry: JSON for machines, console for
// people. Nothing is sampled: a line that is missing is the one that is needed.
func newLogger(level config.LogLevel, format config.LogFormat, w io.Writer) *zap.Logger {
	least, err := zapcore.ParseLevel(string(level))
	if err != nil {
		least = zapcore.InfoLevel // config.Load lets no other through
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.TimeKey = "time"
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	encoding.EncodeDuration = zapcore.StringDurationEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if format == config.LogConsole {
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), least))
}

func zapNode(cfg config.Config) zap.Field { return zap.String("node", cfg.Node) }

// logStart notes once what is running and how it is set, and what deserves a
// word about the settings.
func logStart(log *zap.Logger, cfg config.Config, b Build) {
	settings := map[string]string{}
	for _, s := range cfg.Settings() {
		if s.Origin != "default" {
			settings[s.Name] = s.Value
		}
	}
	log.Info("tandem starts", zap.String("version", b.Version), zap.String("commit", b.Commit), zap.String("go", b.Go),
		zap.String("cluster", cfg.Cluster), zap.String("role", string(cfg.Role)), zap.String("mode", string(cfg.Mode)), zap.Any("settings", settings))
	for _, warning := range cfg.Warnings {
		log.Warn("configuration", zap.String("note", warning))
	}
}
