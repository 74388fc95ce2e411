# Django REST framework ships no types.
# mypy: disable-error-code="misc"

from rest_framework import serializers

from tests.doors.models import Concert


class ConcertSerializer(serializers.ModelSerializer):
    class Meta:
        model = Concert
        fields = ["id", "name", "festival", "musicians"]
