package checks;

import java.util.List;

import clinic.dto.RoomView;
import clinic.service.Registry;

/** The hole {@code room-views}. */
public class RoomViewsTest {
    public void test() {
        List<RoomView> views = new Registry().views(List.of(Clinic.SOUTH, Clinic.NORTH));
        Check.same(2, views.size());
        Check.same(1L, views.get(0).getId());
        Check.same("R-1", views.get(0).getNumber());
        Check.same("south room", views.get(0).getTitle());
        Check.same(2L, views.get(1).getId());
        Check.same("R-2", views.get(1).getNumber());
        Check.same("north room", views.get(1).getTitle());
    }
}
