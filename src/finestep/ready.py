"""Ready: what a trainer says when it can take the first trial; values only, JSON both ways, kept as `ready.json`."""

from __future__ import annotations

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field

from finestep.facts import DataFacts


class _Value(BaseModel):
    """Fields that a newer version adds are ignored, so that an older one can read the file."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), populate_by_name=True)


class DataCard(_Value):
    """What the data are, once they have been read, split and tokenised."""

    facts: DataFacts = DataFacts(name="")
    lengths: dict[str, int] = Field(default_factory=dict, description="Row lengths in tokens by percentile, e.g. p50.")
    longest: int | None = Field(None, description="Longest row before anything is cut, tokens.")
    max_length: int | None = Field(None, description="Rows are cut at this many tokens.")
    num_cut: int = 0
    num_tokens_cut: int = 0
    num_continued: int = Field(0, description="Long texts that go on in further rows.")
    num_left_out: int = Field(0, description="Training rows of whose answer nothing lies within `max_length`.")
    num_duplicates: int = 0
    unused: dict[str, float] = Field(
        default_factory=dict,
        description="Columns that no row is made from -> share of rows that have something in them.",
    )
    notes: tuple[str, ...] = Field((), description="What a person should know about the data, a clause each.")
    labels: dict[str, int] = Field(default_factory=dict, description="Rows of each label, the most frequent first.")
    fixed_share: float = Field(
        0.0, ge=0, le=1, description="Of a full run's time, what another trainer needs for a run of any length."
    )
    accuracy_error: float | None = Field(
        None, description="Largest standard error of an accuracy on the rows held out."
    )
    sample: tuple[tuple[str, bool], ...] = Field(
        (), description="One row as pieces of text, and whether they carry loss."
    )

    def with_notes(self, *notes: str) -> DataCard:
        """The card with further notes at the end.

        >>> DataCard(notes=("3 rows are empty",)).with_notes("model: slow").notes
        ('3 rows are empty', 'model: slow')
        """
        return self.model_copy(update={"notes": (*self.notes, *notes)})


class Machine(_Value):
    """What trains: the model as it was loaded, and the device that it is on."""

    num_parameters: int | None = Field(None, description="Of the model, adapters included.")
    model_type: str = ""
    device: str = ""
    device_name: str = ""
    dtype: str = Field("", description="Of the weights, e.g. bfloat16.")
    num_threads: int | None = Field(None, description="CPU threads of one worker.")
    command: str | None = Field(None, description="The user's own command, where one trains.")
    trainer: str = Field("", description="The framework that trains by a config of its own.")
    config: str = ""
    start_up_s: float | None = Field(
        None, description="Seconds of a run of that framework that its length does not change."
    )
    step_s: float | None = None

    def known(self) -> dict[str, str | int]:
        """What is known, by name.

        >>> Machine(device="cpu", num_threads=2).known()
        {'device': 'cpu', 'num_threads': 2}
        """
        return {name: value for name, value in self.model_dump().items() if value not in (None, "")}


class SharePlan(_Value):
    """How trials share the device: how many ride in one pass, how many processes train, and why, in words."""

    num_lanes: int = Field(1, ge=1, description="Trials that share one forward and backward pass.")
    rows: int | None = Field(None, ge=1, description="Rows of each trial in a shared pass; None: its micro-batch.")
    gain: float = Field(1.0, description="Times faster than one trial after the other.")
    why: str = ""
    num_threads: int | None = Field(None, ge=1, description="CPU threads, where they were chosen by measurement.")
    threads_why: str = ""
    num_workers: int = Field(1, ge=1, description="Processes like this one that pay, this one included.")
    workers_why: str = ""
    end_to_end: bool = Field(False, description="Texts of a trial are laid end to end instead of padded to one length.")
    end_to_end_why: str = ""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def at_once(self) -> int:
        """Trials under way at the same time, in all workers.

        >>> SharePlan(num_lanes=3, num_workers=2).at_once
        6
        """
        return self.num_lanes * self.num_workers


class Ready(_Value):
    """The whole answer: the data, the machine, and how trials share it.

    A study that began under finestep 0.1 wrote `facts` and `pack` where `machine` and `sharing` stand now; both are read.
    """

    card: DataCard = DataCard()
    machine: Machine = Field(Machine(), validation_alias=AliasChoices("machine", "facts"))
    sharing: SharePlan = Field(SharePlan(), validation_alias=AliasChoices("sharing", "pack"))
