package uploads

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
)

// traceFlush bounds how long a command waits at its end for the collector of spans.
const traceFlush = 5 * time.Second

// tracer sends spans to a collector. A nil tracer does nothing. Spans have methods, addresses,
// statuses and file names in them, never headers or bodies.
type tracer struct{ provider *sdktrace.TracerProvider }

// openTracer returns a tracer if the standard variables of OpenTelemetry name a collector, and nil if
// they name none or switch traces off. The exporter reads the other variables (headers,
// certificates, timeouts) itself.
func openTracer(ctx context.Context, u *ui.UI) (*tracer, error) {
	named := u.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || u.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	if !named || strings.EqualFold(u.Getenv("OTEL_SDK_DISABLED"), "true") || u.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("opening the trace exporter: %w", err)
	}
	who, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "artstore-pki")), resource.WithFromEnv())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading OTEL_RESOURCE_ATTRIBUTES: %w", err), exporter.Shutdown(ctx))
	}
	return &tracer{sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(who))}, nil
}

// trace changes cfg so that every request of its clients becomes a span.
func (t *tracer) trace(cfg *ingestclient.Config) {
	if t != nil {
		cfg.Wrap = t.wrap
	}
}

// wrap returns rt with a span around each request. The name of the span has no id in it.
func (t *tracer) wrap(rt http.RoundTripper) http.RoundTripper {
	return otelhttp.NewTransport(rt,
		otelhttp.WithTracerProvider(t.provider),
		otelhttp.WithPropagators(propagation.TraceContext{}), // traceparent (W3C); no baggage: it could carry anything
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method + " " + route(r.URL.Path) }),
	)
}

// route returns path with {id} in place of the id of a file, because names of spans should be few.
func route(path string) string {
	const files = "/api/v1/files/"
	at := strings.Index(path, files)
	if at < 0 || strings.HasSuffix(path, files+"upload") {
		return path
	}
	_, rest, more := strings.Cut(path[at+len(files):], "/")
	if more {
		rest = "/" + rest
	}
	return files + "{id}" + rest
}

// upload begins the span of one file, around all attempts; end ends it with the outcome.
func (t *tracer) upload(ctx context.Context, name string) (_ context.Context, end func(error)) {
	if t == nil {
		return ctx, func(error) {}
	}
	ctx, span := t.provider.Tracer("artstore-pki").Start(ctx, "upload")
	span.SetAttributes(attribute.String("file.name", name))
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error()) // errors of ingestclient hold no secrets
		}
		span.End()
	}
}

// flush sends the remaining spans and ends the tracer. It waits for traceFlush at most. A collector that
// does not answer is no error, because the files are uploaded all the same.
func (t *tracer) flush(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
	defer cancel()
	_ = t.provider.Shutdown(ctx)
}
