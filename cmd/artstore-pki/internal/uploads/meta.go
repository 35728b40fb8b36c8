package uploads

import (
	"mime"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/values"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/humantime"
	"github.com/artstore/artstore-pki/internal/printable"
)

// Limits and words that both of ArtStore's Storage Elements have.
const (
	retentionPermanent = "permanent"
	retentionTemporary = "temporary"
	maxTTL             = 365 * humantime.Day
)

// MetaFlags returns the flags for what goes with each file; [MetaOf] reads them.
func MetaFlags() []cli.Flag {
	const category = "file"
	return []cli.Flag{
		&cli.StringFlag{Name: "description", Category: category, Usage: "`TEXT` stored with each file"},
		&cli.StringSliceFlag{Name: "tags", Category: category, Usage: "`TAG` stored with each file, such as project=atlas; repeat for more (the Go Storage Element keeps them)"},
		&cli.StringFlag{Name: "content-type", Category: category, DefaultText: "application/octet-stream", Usage: "media `TYPE` of each file, such as image/tiff"},
		&cli.StringFlag{Name: "retention", Category: category, Usage: "`CLASS` of storage: permanent or temporary; chooses among several Storage Elements by their mode (default: whichever takes the file)"},
		&cli.GenericFlag{Name: "ttl", Category: category, Value: &values.Duration{}, DefaultText: " ", Usage: "how long temporary files should be kept, a `TIME` in whole days from 1d to 365d; no Storage Element obeys it yet"},
	}
}

// MetaOf returns what goes with each file, from the flags of [MetaFlags]. It checks the values, which
// the Storage Elements check as well, because their errors come later and say less.
func MetaOf(c *cli.Context) (ingestclient.Meta, error) {
	ttl := values.DurationOf(c, "ttl")
	meta := ingestclient.Meta{
		Description: c.String("description"), Tags: c.StringSlice("tags"), ContentType: c.String("content-type"),
		Retention: c.String("retention"), TTLDays: int(ttl / humantime.Day),
	}
	switch meta.Retention {
	case "", retentionPermanent, retentionTemporary:
	default:
		return meta, ui.UsageErrorf("--retention %q: want permanent or temporary", printable.Clean(meta.Retention))
	}
	if meta.ContentType != "" {
		if kind, _, err := mime.ParseMediaType(meta.ContentType); err != nil || !strings.Contains(kind, "/") {
			return meta, ui.UsageErrorf("--content-type %q: want a media type such as image/tiff", printable.Clean(meta.ContentType))
		}
	}
	switch {
	case ttl%humantime.Day != 0 || ttl > maxTTL:
		return meta, ui.UsageErrorf("--ttl: want whole days, from 1d to 365d")
	case ttl != 0 && meta.Retention == retentionPermanent:
		return meta, ui.UsageErrorf("--ttl is for temporary files")
	}
	for _, tag := range meta.Tags {
		if tag == "" {
			return meta, ui.UsageErrorf("--tags: a tag is empty")
		}
	}
	return meta, nil
}
