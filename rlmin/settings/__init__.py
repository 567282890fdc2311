"""Settings: fields that declare type and range beside themselves, and the checks of public arguments that follow from
them.
"""

from typing import TYPE_CHECKING

from rlmin.checks import old_names
from rlmin.settings.fields import POSITIONAL as POSITIONAL
from rlmin.settings.fields import About as About
from rlmin.settings.fields import Count as Count
from rlmin.settings.fields import CountOrZero as CountOrZero
from rlmin.settings.fields import Jobs as Jobs
from rlmin.settings.fields import Known as Known
from rlmin.settings.fields import NonNegative as NonNegative
from rlmin.settings.fields import Positional as Positional
from rlmin.settings.fields import Positive as Positive
from rlmin.settings.fields import Range as Range
from rlmin.settings.fields import Seed as Seed
from rlmin.settings.fields import Settings as Settings
from rlmin.settings.fields import Share as Share
from rlmin.settings.fields import ShareBelowOne as ShareBelowOne
from rlmin.settings.fields import Size as Size
from rlmin.settings.fields import Threads as Threads
from rlmin.settings.fields import Workers as Workers
from rlmin.settings.fields import check_setting as check_setting
from rlmin.settings.fields import describe_settings as describe_settings
from rlmin.settings.fields import field_types as field_types
from rlmin.settings.fields import from_text as from_text
from rlmin.settings.fields import limits as limits
from rlmin.settings.fields import words as words

if not TYPE_CHECKING:
    __getattr__ = old_names(__name__, describe="describe_settings")
